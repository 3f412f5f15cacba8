"""What complete training runs gave: a record of each, and the page that shows them."""
