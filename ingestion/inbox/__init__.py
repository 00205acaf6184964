"""The inbox: signed webhooks of other systems, kept as received and landed like any other collection."""
