"""The label by which a build of sparkops is known."""

LABEL = "sparkops.build"
