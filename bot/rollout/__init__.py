"""The values of a rollout and the state machine that moves it; pure, standard library only."""
