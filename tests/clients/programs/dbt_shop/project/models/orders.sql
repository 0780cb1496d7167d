select id, customer, amount from {{ ref('raw_orders') }} where amount > 0
