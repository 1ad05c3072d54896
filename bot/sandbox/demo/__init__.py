"""The main job, told twice on the sandbox: a good release promoted, a bad one rolled back, and measured."""
