"""What a stack should be, what it is, and the plan between the two. Pure: no Ray, no network, no clock."""
