"""Where images and labels come from: folders, lists, records, IDX files, arrays."""
