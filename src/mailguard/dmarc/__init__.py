"""DMARC (RFC 9989): does what was authenticated belong to the domain in From, and what does that domain ask for?"""
