"""Stages in other processes: on this machine or on a Ray cluster, from one schedule, through the store alone."""
