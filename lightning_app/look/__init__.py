"""How data modules, audits and runs show themselves."""
