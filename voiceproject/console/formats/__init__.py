"""How the pages write times: with their zone, as logs and the columns of the console's lists have them."""
