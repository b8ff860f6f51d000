"""The page on which pictures are dropped: one template, for the server and for the page that works by itself."""
