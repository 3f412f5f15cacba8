"""The figures of Hou et al., section 4, from anybody's runs: what `fastvae figures` draws."""
