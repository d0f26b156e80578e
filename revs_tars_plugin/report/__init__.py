"""What people are shown: results on disk, the page that is drawn from them, model cards, and masked texts."""
