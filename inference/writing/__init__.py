"""Images to files: pictures, arrays and folders, each written whole or not at all."""
