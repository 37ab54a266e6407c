"""The worker: resident servables, the queue, the batcher and the job runner."""
