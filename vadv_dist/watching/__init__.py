"""The one door to metrics: what a run's lines tell, as `vadv_*` series for Prometheus and for experiment trackers."""
