"""Drawing phantoms: who is ill (cohort), the chest (anatomy, skeleton), findings (lesions), the film (exposure)."""
