"""The product in processes of its own, and where its servers listen."""
