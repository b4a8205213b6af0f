"""Who waits for which model, and in what order texts run."""
