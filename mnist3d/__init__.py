"""Sculpt a 3D volume out of 2D pictures."""
