{#- What stands for a value about a person where it is shown: the same value gives the same name, and the name does not
    tell the value. Whoever may read the stream can find a value's name; it hides, it does not make anonymous. -#}
{%- macro hashed(column) -%}
left(sha256({{ column }}), 16)
{%- endmacro -%}
