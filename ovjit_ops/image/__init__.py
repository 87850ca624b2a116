"""Pictures: resizing, sampling, colour planes, patches."""
