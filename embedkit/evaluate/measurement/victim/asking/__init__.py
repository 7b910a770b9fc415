"""How attacks ask a served model: what is counted, and how many questions are on their way."""
