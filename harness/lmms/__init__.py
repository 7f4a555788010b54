"""The one bridge to lmms-eval: its model class, its tasks, scoring by replay."""
