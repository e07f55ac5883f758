"""Values against each other: what each key allows alone and the file as a whole does not.

``policy_and_site``  contradictions in a policy; names, addresses and origins of a site that collide
``rows``             rows that can never match, never act, or do harm
``outbox`` ``intercept``  what storing and interception need before they can work
"""
