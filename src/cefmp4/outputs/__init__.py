"""What a job writes into the store: under names of its attempt, then published or taken back."""
