"""The terminal dashboard: what is seen (board), how it looks (view), the loop that draws it (live)."""
