"""What is put onto a card besides software: the claim and the way into the network."""
