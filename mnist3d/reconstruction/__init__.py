"""One object from its images, views known or unknown."""
