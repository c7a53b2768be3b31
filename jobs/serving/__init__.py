"""A model behind the OpenAI and Azure AI chat protocols: the same server here and in a container."""
