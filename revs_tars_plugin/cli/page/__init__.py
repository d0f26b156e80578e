"""The page of `revs-tars app`: what it can do (`workbench`), what may be typed (`entries`), how it looks (`layout`)."""
