"""What a fine-tune changed, as a LoRA adapter. In: two models; out: a folder that peft loads."""
