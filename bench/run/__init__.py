"""Where a number starts: options -> cases -> processes that compute, a parent that judges -> records."""
