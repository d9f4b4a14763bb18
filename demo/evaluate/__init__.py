"""How well a model replies to openings that it has not seen. `python -m demo.evaluate --help`.

`measures` judges texts and knows no model, `held_back` measures the loss, `__main__` generates and writes the table.
"""
