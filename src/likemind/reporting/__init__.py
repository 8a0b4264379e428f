"""From results to one page that stands alone."""
