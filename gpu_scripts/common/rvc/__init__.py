"""Training of voices for RVC (rvc_train.py): `projects`, what Applio and RVC-Project want; `training`, the stages."""
