"""Pre-training and fine-tuning: corpora, tokenizers, and the scripts that run inside jobs; nothing imports Airflow."""
