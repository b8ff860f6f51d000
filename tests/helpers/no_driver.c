/* Stands in for NVIDIA's libcuda.so.1 on machines without a driver: what libmxnet.so of mxnet-cu112 takes from it. */
#define NO_DEVICE(name) int name(void) { return 100; }  /* CUDA_ERROR_NO_DEVICE */
NO_DEVICE(cuDeviceGet)
NO_DEVICE(cuDevicePrimaryCtxRetain)
NO_DEVICE(cuGetErrorString)
NO_DEVICE(cuGraphKernelNodeGetParams)
NO_DEVICE(cuGraphNodeGetType)
NO_DEVICE(cuLaunchKernel)
NO_DEVICE(cuModuleGetFunction)
NO_DEVICE(cuModuleLoadData)
NO_DEVICE(cuModuleLoadDataEx)
NO_DEVICE(cuModuleUnload)
