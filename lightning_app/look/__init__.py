"""How data modules, audits and runs show themselves: HTML, Markdown and pictures."""
