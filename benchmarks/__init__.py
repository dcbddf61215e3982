"""What the framework costs against plain Sentence Transformers scripts."""
