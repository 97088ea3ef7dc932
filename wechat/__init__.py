"""What WeChat defines. docs/architecture.md lists the modules, in the order in which they import one another."""
