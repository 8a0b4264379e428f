"""Reading pictures: where they lie, how they are decoded and prepared."""
