"""The desk's JSON: resources, figures, the live stream, the health of the tap.

Pages (`mcp_tap.ui`) ask the same questions through the same modules: `parameters` reads a URL once for both.
"""
