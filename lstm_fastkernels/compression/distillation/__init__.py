"""Knowledge distillation: a small or compressed student learns from the model it stands for."""
