"""Values of fields as others have written them: images as they are encoded, volumes and what is done to them."""
