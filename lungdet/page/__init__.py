"""How a report looks: its wording, its drawings, and the page they stand on."""
