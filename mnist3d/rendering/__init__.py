"""Volume and rotation -> view."""
