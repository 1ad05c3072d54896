"""The values and the state machine of a rollout; pure, standard library only."""
