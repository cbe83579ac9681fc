"""Quantised Hugging Face checkpoints: what each form of them holds, writing one tensor by tensor, reading it back.

How weights are rounded is no business of these modules: they take integers, scales and zero points, and give them back
bit for bit.
"""
