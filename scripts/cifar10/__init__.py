"""What the page on CIFAR-10 is made of: studies, the lab report, and what others have published."""
