"""What runs around the package: image, manifests, and servers and clusters on one machine to try it on."""
